"""The report: words, pictures and the page that holds them."""
