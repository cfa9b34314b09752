"""Maps over frames; blurring of what nobody is to see."""
