"""`gossamer plan`: what a model would cost on chips that are not at hand; a file a question."""
