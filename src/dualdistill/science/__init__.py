"""The paper's experiments on a world of our own: methods x teachers x seeds in, one small file a run, one page out."""
