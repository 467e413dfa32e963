"""The demo: two real language models, real news, SAEs that this project trained. No hub is contacted."""
