"""Files to uint8 clips: decoding, sampling of frames, resizing, boxes."""
