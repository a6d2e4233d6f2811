"""Chapter 2: what a cohort is made by, measured."""
