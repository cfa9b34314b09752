"""Clips on disk become batches."""

from datamodules.clip_data_module import ClipDataModule
from datamodules.drive_and_act import DriveAndAct
from datamodules.driver_clips import DriverClips
from datamodules.synthetic_cabin import SyntheticCabin
from datamodules.ucf101 import UCF101

__all__ = ["UCF101", "ClipDataModule", "DriveAndAct", "DriverClips", "SyntheticCabin"]
