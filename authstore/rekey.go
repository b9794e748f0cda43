package authstore

// rekey is the digest of a just verified secret under the newest root key.
type rekey = Rekey
