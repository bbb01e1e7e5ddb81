"""The pages and the API: an HTTP face on the use cases of `allocator`."""
