"""Chapter 3: the outline studied."""
