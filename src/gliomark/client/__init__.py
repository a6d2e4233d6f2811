"""The desktop client: a patient's folder to the answer, over HTTP, without torch."""
