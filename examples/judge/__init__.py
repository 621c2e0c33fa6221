"""A judge: runs submissions in containers, compares what they print, and says what they have used."""
