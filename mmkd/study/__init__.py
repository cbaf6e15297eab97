"""Studies: does a change help, judged by paired seeds and a threshold set beforehand."""
