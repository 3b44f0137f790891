"""Users who say what they want: wishes, words, ratings and answers on top of any simulator."""
