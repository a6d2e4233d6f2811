"""How good an answer is; arrays in, numbers out, every interval over patients."""
