-- Oban's statements create their types in the first schema of the path. The name is quoted.
SET LOCAL search_path TO {schema};
