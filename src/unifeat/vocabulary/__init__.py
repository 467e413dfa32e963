"""Words that many rooms use: hook points, openings, masks, windowing, places of tokens, paired codes. No torch."""
