"""Pages for people: strips on ECG paper, the course of a whole recording, a page per recording and an index of them."""
