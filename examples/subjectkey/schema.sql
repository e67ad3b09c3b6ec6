-- One key for each aggregate that is a person, or belongs to one. Make a migration of this file.
CREATE TABLE subject_key (
    subject varchar(356) NOT NULL, -- aggregate type, a slash and aggregate id; a type has no slash
    wrapped bytea NULL, -- by the master key; NULL after the subject was erased
    CONSTRAINT subject_key_pkey PRIMARY KEY (subject)
);
