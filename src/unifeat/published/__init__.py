"""The published scores of arXiv 2410.06981.

`arxiv-2410.06981.csv` holds its 567 cells as published: models, matching, category (empty for whole spaces), layers,
pairs, mean r, and score, null and p of SVCCA and RSA. Layers are numbered as in the SAEs' names.

The paper's choices are a preset of the study (`study.presets`); `beside` compares its numbers with a run's.
"""
