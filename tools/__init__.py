"""What maintains this repository; not part of the package."""
