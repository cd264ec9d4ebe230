"""What a model demands of its inputs."""
