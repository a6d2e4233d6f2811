"""Why an answer came out: which pixels of the image, which columns of the table."""
