complete -c kms -n '__fish_use_subcommand' -f -a encrypt
complete -c kms -n '__fish_use_subcommand' -f -a decrypt
complete -c kms -n '__fish_use_subcommand' -f -a re-encrypt
complete -c kms -n '__fish_use_subcommand' -f -a sign
complete -c kms -n '__fish_use_subcommand' -f -a verify
complete -c kms -n '__fish_use_subcommand' -f -a public-key
complete -c kms -n '__fish_use_subcommand' -f -a random
complete -c kms -n '__fish_use_subcommand' -f -a data-key
complete -c kms -n '__fish_use_subcommand' -f -a encrypt-file
complete -c kms -n '__fish_use_subcommand' -f -a decrypt-file
complete -c kms -n '__fish_use_subcommand' -f -a csr
complete -c kms -n '__fish_use_subcommand' -f -a status
complete -c kms -n '__fish_use_subcommand' -f -a whoami
complete -c kms -n '__fish_use_subcommand' -f -a metrics
complete -c kms -n '__fish_use_subcommand' -f -a lock
complete -c kms -n '__fish_use_subcommand' -f -a confirm-clock
complete -c kms -n '__fish_use_subcommand' -f -a unlock
complete -c kms -n '__fish_use_subcommand' -f -a call
complete -c kms -n '__fish_use_subcommand' -f -a key
complete -c kms -n '__fish_use_subcommand' -f -a alias
complete -c kms -n '__fish_use_subcommand' -f -a policy
complete -c kms -n '__fish_use_subcommand' -f -a explain
complete -c kms -n '__fish_use_subcommand' -f -a keyslot
complete -c kms -n '__fish_use_subcommand' -f -a audit
complete -c kms -n '__fish_use_subcommand' -f -a completion
complete -c kms -n '__fish_use_subcommand' -l version
complete -c kms -n '__fish_use_subcommand' -l socket
complete -c kms -n '__fish_use_subcommand' -l json
complete -c kms -n '__fish_use_subcommand' -l timeout
complete -c kms -n '__fish_seen_subcommand_from encrypt' -l output
complete -c kms -n '__fish_seen_subcommand_from encrypt' -l force
complete -c kms -n '__fish_seen_subcommand_from encrypt' -l base64
complete -c kms -n '__fish_seen_subcommand_from encrypt' -l key
complete -c kms -n '__fish_seen_subcommand_from encrypt' -l aad
complete -c kms -n '__fish_seen_subcommand_from encrypt' -l aad-file
complete -c kms -n '__fish_seen_subcommand_from decrypt' -l output
complete -c kms -n '__fish_seen_subcommand_from decrypt' -l force
complete -c kms -n '__fish_seen_subcommand_from decrypt' -l base64
complete -c kms -n '__fish_seen_subcommand_from decrypt' -l key
complete -c kms -n '__fish_seen_subcommand_from decrypt' -l aad
complete -c kms -n '__fish_seen_subcommand_from decrypt' -l aad-file
complete -c kms -n '__fish_seen_subcommand_from re-encrypt' -l output
complete -c kms -n '__fish_seen_subcommand_from re-encrypt' -l force
complete -c kms -n '__fish_seen_subcommand_from re-encrypt' -l base64
complete -c kms -n '__fish_seen_subcommand_from re-encrypt' -l key
complete -c kms -n '__fish_seen_subcommand_from re-encrypt' -l aad
complete -c kms -n '__fish_seen_subcommand_from re-encrypt' -l aad-file
complete -c kms -n '__fish_seen_subcommand_from re-encrypt' -l to
complete -c kms -n '__fish_seen_subcommand_from re-encrypt' -l to-aad
complete -c kms -n '__fish_seen_subcommand_from sign' -l output
complete -c kms -n '__fish_seen_subcommand_from sign' -l force
complete -c kms -n '__fish_seen_subcommand_from sign' -l base64
complete -c kms -n '__fish_seen_subcommand_from sign' -l key
complete -c kms -n '__fish_seen_subcommand_from sign' -l algorithm
complete -c kms -n '__fish_seen_subcommand_from sign' -l format
complete -c kms -n '__fish_seen_subcommand_from sign' -l key-version
complete -c kms -n '__fish_seen_subcommand_from sign' -l digest
complete -c kms -n '__fish_seen_subcommand_from verify' -l output
complete -c kms -n '__fish_seen_subcommand_from verify' -l force
complete -c kms -n '__fish_seen_subcommand_from verify' -l base64
complete -c kms -n '__fish_seen_subcommand_from verify' -l key
complete -c kms -n '__fish_seen_subcommand_from verify' -l algorithm
complete -c kms -n '__fish_seen_subcommand_from verify' -l format
complete -c kms -n '__fish_seen_subcommand_from verify' -l key-version
complete -c kms -n '__fish_seen_subcommand_from verify' -l digest
complete -c kms -n '__fish_seen_subcommand_from public-key' -l key-version
complete -c kms -n '__fish_seen_subcommand_from public-key' -l output
complete -c kms -n '__fish_seen_subcommand_from public-key' -l force
complete -c kms -n '__fish_seen_subcommand_from public-key' -l base64
complete -c kms -n '__fish_seen_subcommand_from public-key' -l key
complete -c kms -n '__fish_seen_subcommand_from random' -l output
complete -c kms -n '__fish_seen_subcommand_from random' -l force
complete -c kms -n '__fish_seen_subcommand_from random' -l base64
complete -c kms -n '__fish_seen_subcommand_from data-key' -l key
complete -c kms -n '__fish_seen_subcommand_from data-key' -l bytes
complete -c kms -n '__fish_seen_subcommand_from data-key' -l without-plaintext
complete -c kms -n '__fish_seen_subcommand_from data-key' -l aad
complete -c kms -n '__fish_seen_subcommand_from data-key' -l aad-file
complete -c kms -n '__fish_seen_subcommand_from encrypt-file' -l output
complete -c kms -n '__fish_seen_subcommand_from encrypt-file' -l force
complete -c kms -n '__fish_seen_subcommand_from encrypt-file' -l key
complete -c kms -n '__fish_seen_subcommand_from encrypt-file' -l recipient
complete -c kms -n '__fish_seen_subcommand_from decrypt-file' -l output
complete -c kms -n '__fish_seen_subcommand_from decrypt-file' -l force
complete -c kms -n '__fish_seen_subcommand_from decrypt-file' -l key
complete -c kms -n '__fish_seen_subcommand_from csr' -l key
complete -c kms -n '__fish_seen_subcommand_from csr' -l subject
complete -c kms -n '__fish_seen_subcommand_from csr' -l dns
complete -c kms -n '__fish_seen_subcommand_from csr' -l ip
complete -c kms -n '__fish_seen_subcommand_from csr' -l output
complete -c kms -n '__fish_seen_subcommand_from csr' -l force
complete -c kms -n '__fish_seen_subcommand_from confirm-clock' -l yes
complete -c kms -n '__fish_seen_subcommand_from unlock' -l keyslot
complete -c kms -n '__fish_seen_subcommand_from unlock' -l token
complete -c kms -n '__fish_seen_subcommand_from unlock' -l pin-fd
complete -c kms -n '__fish_seen_subcommand_from unlock' -l no-person
complete -c kms -n '__fish_seen_subcommand_from unlock' -l passphrase-fd
complete -c kms -n '__fish_seen_subcommand_from key' -f -a create
complete -c kms -n '__fish_seen_subcommand_from key' -f -a list
complete -c kms -n '__fish_seen_subcommand_from key' -f -a show
complete -c kms -n '__fish_seen_subcommand_from key' -f -a describe
complete -c kms -n '__fish_seen_subcommand_from key' -f -a tag
complete -c kms -n '__fish_seen_subcommand_from key' -f -a untag
complete -c kms -n '__fish_seen_subcommand_from key' -f -a enable
complete -c kms -n '__fish_seen_subcommand_from key' -f -a disable
complete -c kms -n '__fish_seen_subcommand_from key' -f -a protect
complete -c kms -n '__fish_seen_subcommand_from key' -f -a unprotect
complete -c kms -n '__fish_seen_subcommand_from key' -f -a rotate
complete -c kms -n '__fish_seen_subcommand_from key' -f -a rotation
complete -c kms -n '__fish_seen_subcommand_from key' -f -a versions
complete -c kms -n '__fish_seen_subcommand_from key' -f -a version
complete -c kms -n '__fish_seen_subcommand_from key' -f -a set-primary
complete -c kms -n '__fish_seen_subcommand_from key' -f -a import
complete -c kms -n '__fish_seen_subcommand_from key' -f -a import-parameters
complete -c kms -n '__fish_seen_subcommand_from key' -f -a delete-material
complete -c kms -n '__fish_seen_subcommand_from key' -f -a delete
complete -c kms -n '__fish_seen_subcommand_from key' -f -a cancel-deletion
complete -c kms -n '__fish_seen_subcommand_from key; and __fish_seen_subcommand_from create' -l spec
complete -c kms -n '__fish_seen_subcommand_from key; and __fish_seen_subcommand_from create' -l usage
complete -c kms -n '__fish_seen_subcommand_from key; and __fish_seen_subcommand_from create' -l alias
complete -c kms -n '__fish_seen_subcommand_from key; and __fish_seen_subcommand_from create' -l description
complete -c kms -n '__fish_seen_subcommand_from key; and __fish_seen_subcommand_from create' -l tag
complete -c kms -n '__fish_seen_subcommand_from key; and __fish_seen_subcommand_from create' -l origin
complete -c kms -n '__fish_seen_subcommand_from key; and __fish_seen_subcommand_from create' -l hsm
complete -c kms -n '__fish_seen_subcommand_from key; and __fish_seen_subcommand_from create' -l token
complete -c kms -n '__fish_seen_subcommand_from key; and __fish_seen_subcommand_from create' -l rotate
complete -c kms -n '__fish_seen_subcommand_from key; and __fish_seen_subcommand_from create' -l unlock-lifetime
complete -c kms -n '__fish_seen_subcommand_from key; and __fish_seen_subcommand_from create' -l protect
complete -c kms -n '__fish_seen_subcommand_from key; and __fish_seen_subcommand_from list' -l state
complete -c kms -n '__fish_seen_subcommand_from key; and __fish_seen_subcommand_from list' -l spec
complete -c kms -n '__fish_seen_subcommand_from key; and __fish_seen_subcommand_from list' -l alias
complete -c kms -n '__fish_seen_subcommand_from key; and __fish_seen_subcommand_from list' -l tag
complete -c kms -n '__fish_seen_subcommand_from key; and __fish_seen_subcommand_from protect' -l why
complete -c kms -n '__fish_seen_subcommand_from key; and __fish_seen_subcommand_from rotate' -l no-primary
complete -c kms -n '__fish_seen_subcommand_from key; and __fish_seen_subcommand_from import' -l file
complete -c kms -n '__fish_seen_subcommand_from key; and __fish_seen_subcommand_from import' -l base64
complete -c kms -n '__fish_seen_subcommand_from key; and __fish_seen_subcommand_from import' -l wrapped
complete -c kms -n '__fish_seen_subcommand_from key; and __fish_seen_subcommand_from import' -l token
complete -c kms -n '__fish_seen_subcommand_from key; and __fish_seen_subcommand_from import' -l expires
complete -c kms -n '__fish_seen_subcommand_from key; and __fish_seen_subcommand_from import-parameters' -l public-key
complete -c kms -n '__fish_seen_subcommand_from key; and __fish_seen_subcommand_from import-parameters' -l token
complete -c kms -n '__fish_seen_subcommand_from key; and __fish_seen_subcommand_from import-parameters' -l wrapping-spec
complete -c kms -n '__fish_seen_subcommand_from key; and __fish_seen_subcommand_from import-parameters' -l wrapping-algorithm
complete -c kms -n '__fish_seen_subcommand_from key; and __fish_seen_subcommand_from import-parameters' -l force
complete -c kms -n '__fish_seen_subcommand_from key; and __fish_seen_subcommand_from delete-material' -l yes
complete -c kms -n '__fish_seen_subcommand_from key; and __fish_seen_subcommand_from delete' -l days
complete -c kms -n '__fish_seen_subcommand_from key; and __fish_seen_subcommand_from delete' -l yes
complete -c kms -n '__fish_seen_subcommand_from alias' -f -a create
complete -c kms -n '__fish_seen_subcommand_from alias' -f -a update
complete -c kms -n '__fish_seen_subcommand_from alias' -f -a delete
complete -c kms -n '__fish_seen_subcommand_from alias' -f -a list
complete -c kms -n '__fish_seen_subcommand_from policy' -f -a get
complete -c kms -n '__fish_seen_subcommand_from policy' -f -a set
complete -c kms -n '__fish_seen_subcommand_from explain' -l as
complete -c kms -n '__fish_seen_subcommand_from explain' -l alias
complete -c kms -n '__fish_seen_subcommand_from keyslot' -f -a list
complete -c kms -n '__fish_seen_subcommand_from keyslot' -f -a add
complete -c kms -n '__fish_seen_subcommand_from keyslot' -f -a remove
complete -c kms -n '__fish_seen_subcommand_from keyslot; and __fish_seen_subcommand_from add' -l label
complete -c kms -n '__fish_seen_subcommand_from keyslot; and __fish_seen_subcommand_from add' -l token
complete -c kms -n '__fish_seen_subcommand_from keyslot; and __fish_seen_subcommand_from add' -l passphrase-fd
complete -c kms -n '__fish_seen_subcommand_from keyslot; and __fish_seen_subcommand_from add' -l new-passphrase-fd
complete -c kms -n '__fish_seen_subcommand_from keyslot; and __fish_seen_subcommand_from remove' -l passphrase-fd
complete -c kms -n '__fish_seen_subcommand_from audit' -f -a tail
complete -c kms -n '__fish_seen_subcommand_from audit; and __fish_seen_subcommand_from tail' -l lines
complete -c kms -n '__fish_seen_subcommand_from audit; and __fish_seen_subcommand_from tail' -l follow
complete -c kms -n '__fish_seen_subcommand_from audit; and __fish_seen_subcommand_from tail' -l key
complete -c kms -n '__fish_seen_subcommand_from audit; and __fish_seen_subcommand_from tail' -l method
complete -c kms -n '__fish_seen_subcommand_from audit; and __fish_seen_subcommand_from tail' -l uid
complete -c kms -n '__fish_seen_subcommand_from audit; and __fish_seen_subcommand_from tail' -l unit
complete -c kms -n '__fish_seen_subcommand_from audit; and __fish_seen_subcommand_from tail' -l exe
complete -c kms -n '__fish_seen_subcommand_from audit; and __fish_seen_subcommand_from tail' -l outcome
