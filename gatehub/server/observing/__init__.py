"""What is seen of a server from outside: metrics, a log line for each request, traces."""
