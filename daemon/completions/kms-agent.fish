complete -c kms-agent -n '__fish_use_subcommand' -f -a init
complete -c kms-agent -n '__fish_use_subcommand' -f -a serve
complete -c kms-agent -n '__fish_use_subcommand' -f -a dev
complete -c kms-agent -n '__fish_use_subcommand' -f -a rekey
complete -c kms-agent -n '__fish_use_subcommand' -f -a backup
complete -c kms-agent -n '__fish_use_subcommand' -f -a restore
complete -c kms-agent -n '__fish_use_subcommand' -f -a salvage
complete -c kms-agent -n '__fish_use_subcommand' -f -a install
complete -c kms-agent -n '__fish_use_subcommand' -f -a uninstall
complete -c kms-agent -n '__fish_use_subcommand' -f -a keyslot
complete -c kms-agent -n '__fish_use_subcommand' -f -a config
complete -c kms-agent -n '__fish_use_subcommand' -f -a hsm
complete -c kms-agent -n '__fish_use_subcommand' -f -a audit
complete -c kms-agent -n '__fish_use_subcommand' -f -a doctor
complete -c kms-agent -n '__fish_use_subcommand' -l version
complete -c kms-agent -n '__fish_seen_subcommand_from init' -l data-dir
complete -c kms-agent -n '__fish_seen_subcommand_from init' -l passphrase-fd
complete -c kms-agent -n '__fish_seen_subcommand_from init' -l json
complete -c kms-agent -n '__fish_seen_subcommand_from init' -l no-default-key
complete -c kms-agent -n '__fish_seen_subcommand_from init' -l keychain
complete -c kms-agent -n '__fish_seen_subcommand_from init' -l no-keychain
complete -c kms-agent -n '__fish_seen_subcommand_from init' -l system
complete -c kms-agent -n '__fish_seen_subcommand_from serve' -l config
complete -c kms-agent -n '__fish_seen_subcommand_from serve' -l data-dir
complete -c kms-agent -n '__fish_seen_subcommand_from serve' -l socket
complete -c kms-agent -n '__fish_seen_subcommand_from serve' -l audit-dir
complete -c kms-agent -n '__fish_seen_subcommand_from serve' -l accept-rollback
complete -c kms-agent -n '__fish_seen_subcommand_from dev' -l socket
complete -c kms-agent -n '__fish_seen_subcommand_from dev' -l no-default-key
complete -c kms-agent -n '__fish_seen_subcommand_from rekey' -l data-dir
complete -c kms-agent -n '__fish_seen_subcommand_from rekey' -l passphrase-fd
complete -c kms-agent -n '__fish_seen_subcommand_from rekey' -l json
complete -c kms-agent -n '__fish_seen_subcommand_from rekey' -l system
complete -c kms-agent -n '__fish_seen_subcommand_from backup' -l data-dir
complete -c kms-agent -n '__fish_seen_subcommand_from backup' -l passphrase-fd
complete -c kms-agent -n '__fish_seen_subcommand_from backup' -l json
complete -c kms-agent -n '__fish_seen_subcommand_from backup' -l system
complete -c kms-agent -n '__fish_seen_subcommand_from restore' -l data-dir
complete -c kms-agent -n '__fish_seen_subcommand_from restore' -l passphrase-fd
complete -c kms-agent -n '__fish_seen_subcommand_from restore' -l json
complete -c kms-agent -n '__fish_seen_subcommand_from restore' -l system
complete -c kms-agent -n '__fish_seen_subcommand_from salvage' -l data-dir
complete -c kms-agent -n '__fish_seen_subcommand_from salvage' -l passphrase-fd
complete -c kms-agent -n '__fish_seen_subcommand_from salvage' -l json
complete -c kms-agent -n '__fish_seen_subcommand_from salvage' -l system
complete -c kms-agent -n '__fish_seen_subcommand_from install' -l system
complete -c kms-agent -n '__fish_seen_subcommand_from install' -l user
complete -c kms-agent -n '__fish_seen_subcommand_from install' -l dry-run
complete -c kms-agent -n '__fish_seen_subcommand_from install' -l json
complete -c kms-agent -n '__fish_seen_subcommand_from install' -l passphrase-fd
complete -c kms-agent -n '__fish_seen_subcommand_from install' -l with-key
complete -c kms-agent -n '__fish_seen_subcommand_from install' -l no-credential
complete -c kms-agent -n '__fish_seen_subcommand_from uninstall' -l system
complete -c kms-agent -n '__fish_seen_subcommand_from uninstall' -l user
complete -c kms-agent -n '__fish_seen_subcommand_from uninstall' -l dry-run
complete -c kms-agent -n '__fish_seen_subcommand_from uninstall' -l json
complete -c kms-agent -n '__fish_seen_subcommand_from keyslot' -f -a add
complete -c kms-agent -n '__fish_seen_subcommand_from keyslot; and __fish_seen_subcommand_from add' -f -a keychain
complete -c kms-agent -n '__fish_seen_subcommand_from keyslot; and __fish_seen_subcommand_from add' -f -a credential
complete -c kms-agent -n '__fish_seen_subcommand_from keyslot; and __fish_seen_subcommand_from add; and __fish_seen_subcommand_from keychain' -l data-dir
complete -c kms-agent -n '__fish_seen_subcommand_from keyslot; and __fish_seen_subcommand_from add; and __fish_seen_subcommand_from keychain' -l passphrase-fd
complete -c kms-agent -n '__fish_seen_subcommand_from keyslot; and __fish_seen_subcommand_from add; and __fish_seen_subcommand_from keychain' -l json
complete -c kms-agent -n '__fish_seen_subcommand_from keyslot; and __fish_seen_subcommand_from add; and __fish_seen_subcommand_from credential' -l system
complete -c kms-agent -n '__fish_seen_subcommand_from keyslot; and __fish_seen_subcommand_from add; and __fish_seen_subcommand_from credential' -l data-dir
complete -c kms-agent -n '__fish_seen_subcommand_from keyslot; and __fish_seen_subcommand_from add; and __fish_seen_subcommand_from credential' -l passphrase-fd
complete -c kms-agent -n '__fish_seen_subcommand_from keyslot; and __fish_seen_subcommand_from add; and __fish_seen_subcommand_from credential' -l secret-fd
complete -c kms-agent -n '__fish_seen_subcommand_from keyslot; and __fish_seen_subcommand_from add; and __fish_seen_subcommand_from credential' -l with-key
complete -c kms-agent -n '__fish_seen_subcommand_from keyslot; and __fish_seen_subcommand_from add; and __fish_seen_subcommand_from credential' -l credstore
complete -c kms-agent -n '__fish_seen_subcommand_from keyslot; and __fish_seen_subcommand_from add; and __fish_seen_subcommand_from credential' -l json
complete -c kms-agent -n '__fish_seen_subcommand_from config' -f -a show
complete -c kms-agent -n '__fish_seen_subcommand_from config' -f -a check
complete -c kms-agent -n '__fish_seen_subcommand_from config' -f -a schema
complete -c kms-agent -n '__fish_seen_subcommand_from config; and __fish_seen_subcommand_from show' -l system
complete -c kms-agent -n '__fish_seen_subcommand_from config; and __fish_seen_subcommand_from show' -l config
complete -c kms-agent -n '__fish_seen_subcommand_from config; and __fish_seen_subcommand_from show' -l json
complete -c kms-agent -n '__fish_seen_subcommand_from config; and __fish_seen_subcommand_from check' -l system
complete -c kms-agent -n '__fish_seen_subcommand_from config; and __fish_seen_subcommand_from check' -l config
complete -c kms-agent -n '__fish_seen_subcommand_from config; and __fish_seen_subcommand_from check' -l json
complete -c kms-agent -n '__fish_seen_subcommand_from hsm' -f -a list
complete -c kms-agent -n '__fish_seen_subcommand_from hsm; and __fish_seen_subcommand_from list' -l module
complete -c kms-agent -n '__fish_seen_subcommand_from hsm; and __fish_seen_subcommand_from list' -l json
complete -c kms-agent -n '__fish_seen_subcommand_from audit' -f -a verify
complete -c kms-agent -n '__fish_seen_subcommand_from audit; and __fish_seen_subcommand_from verify' -l system
complete -c kms-agent -n '__fish_seen_subcommand_from audit; and __fish_seen_subcommand_from verify' -l data-dir
complete -c kms-agent -n '__fish_seen_subcommand_from audit; and __fish_seen_subcommand_from verify' -l audit-dir
complete -c kms-agent -n '__fish_seen_subcommand_from audit; and __fish_seen_subcommand_from verify' -l archive
complete -c kms-agent -n '__fish_seen_subcommand_from audit; and __fish_seen_subcommand_from verify' -l passphrase-fd
complete -c kms-agent -n '__fish_seen_subcommand_from audit; and __fish_seen_subcommand_from verify' -l json
complete -c kms-agent -n '__fish_seen_subcommand_from doctor' -l config
complete -c kms-agent -n '__fish_seen_subcommand_from doctor' -l data-dir
complete -c kms-agent -n '__fish_seen_subcommand_from doctor' -l socket
complete -c kms-agent -n '__fish_seen_subcommand_from doctor' -l audit-dir
complete -c kms-agent -n '__fish_seen_subcommand_from doctor' -l system
complete -c kms-agent -n '__fish_seen_subcommand_from doctor' -l json
