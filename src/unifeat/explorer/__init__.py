"""The explorer: one HTML file in which every feature of two or more spaces can be looked at. See docs/explorer.md."""
