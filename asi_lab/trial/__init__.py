"""The process that runs candidate code: checks it, trains it, serves it. Labels never come here."""
