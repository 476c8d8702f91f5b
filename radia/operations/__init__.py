"""What an administrator does: databases and their migrations, secrets, backups, retention, logs, the doctor."""
