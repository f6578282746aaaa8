-- Publishes the template only when it is complete. No index.
ALTER DATABASE {name} RENAME TO {template};
