"""CGI scripts, as RFC 3875 has them: found, started, fed, listened to, ended."""
