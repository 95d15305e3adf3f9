"""What a run can train on a backbone: gates, and the methods that they are compared with."""
