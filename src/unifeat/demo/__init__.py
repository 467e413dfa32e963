"""The demo: two real language models, real news, and SAEs that this project trained. It works offline."""
