-- name: CarStatsAdd :exec
-- Adds to the totals of each make and year; the four arrays are side by side, and a make and year is in them once. They are locked in
-- one order, so that two cars that change places between two makes do not wait for each other.
INSERT INTO car_stats (make, year, cars, changes)
SELECT
    unnest(@makes::varchar[]) AS make,
    unnest(@years::integer[]) AS year,
    unnest(@cars::bigint[]) AS cars,
    unnest(@changes::bigint[]) AS changes
ORDER BY make, year
ON CONFLICT ON CONSTRAINT car_stats_pkey DO UPDATE
SET cars = car_stats.cars + excluded.cars,
    changes = car_stats.changes + excluded.changes;

-- name: CarStatsCarPut :exec
-- Remembers under which make and year the car is counted. It must not be counted at the time.
INSERT INTO car_stats_car (car_id, make, year) VALUES (@car_id, @make, @year);

-- name: CarStatsCarTake :one
-- Forgets the car and returns under which make and year it was counted; pgx.ErrNoRows when it was not.
DELETE FROM car_stats_car WHERE car_id = @car_id RETURNING make, year;
