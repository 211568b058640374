//! What a concept is, where it enters a prompt, and its file.
