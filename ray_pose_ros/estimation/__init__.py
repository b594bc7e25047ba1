"""From views to cameras: crops, sampling, recovery, uncertainty, files. No ROS here."""
