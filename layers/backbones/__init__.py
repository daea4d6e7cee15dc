"""Feature extractors shared by two or more applications. Each returns its stages `C1`...`C5` as a dict."""
