"""One cloud: many sites at once, answers written, a page over a million of them."""
