"""The desktop client: from a patient's folder to a prediction, over HTTP, without torch."""
