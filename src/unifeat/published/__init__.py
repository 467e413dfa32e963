"""What was published: the scores of arXiv 2410.06981, and the choices that they were made with.

`arxiv-2410.06981.csv` holds its 567 cells as they were published: models, matching, category (empty for whole spaces),
layers, pairs, mean r, and for SVCCA and RSA score, null and p. Layers are numbered by the SAEs' names.

The choices are a preset of the study (`study.presets`); `beside` puts the numbers next to a run's.
"""
