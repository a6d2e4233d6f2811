"""Chapter 4: the markers studied."""
