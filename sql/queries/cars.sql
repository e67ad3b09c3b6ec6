-- name: CarDelete :exec
-- Removes the car. The caller holds the row by CarLock, and appends its last event.
DELETE FROM cars WHERE id = @id;

-- name: CarGet :one
-- The car as it is now, or pgx.ErrNoRows when there is none. Takes no lock.
SELECT * FROM cars WHERE id = @id;

-- name: CarInsert :exec
-- A new car at version 1, the version of its first event.
INSERT INTO cars (id, make, model, year, color, version, created_at, updated_at)
VALUES (@id, @make, @model, @year, sqlc.narg('color'), 1, @created_at, @created_at);

-- name: CarLock :one
-- The car under its row lock, which is held until the transaction ends. Nobody else changes it, or takes its next version, before that.
-- pgx.ErrNoRows when there is none.
SELECT * FROM cars WHERE id = @id FOR UPDATE;

-- name: CarPage :many
-- The next cars behind the given id, served by cars_pkey. Start with the zero id. Takes no lock.
SELECT * FROM cars
WHERE id > @after_id
ORDER BY id
LIMIT @max_rows;

-- name: CarUpdate :one
-- Writes all four fields and takes the next version. The caller holds the row by CarLock.
UPDATE cars
SET make = @make,
    model = @model,
    year = @year,
    color = sqlc.narg('color'),
    version = version + 1,
    updated_at = @updated_at
WHERE id = @id
RETURNING *;
