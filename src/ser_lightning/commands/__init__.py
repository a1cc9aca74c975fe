"""What each command of ``ser`` takes, beside what it calls; imports wait until it is called."""
