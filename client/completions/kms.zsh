#compdef kms
_kms() {
  local line=kms word
  local -a known
  for word in "${(@)words[2,CURRENT-1]}"; do
    case "$line $word" in 'kms encrypt'|'kms decrypt'|'kms re-encrypt'|'kms sign'|'kms verify'|'kms public-key'|'kms random'|'kms data-key'|'kms encrypt-file'|'kms decrypt-file'|'kms csr'|'kms status'|'kms whoami'|'kms metrics'|'kms lock'|'kms confirm-clock'|'kms unlock'|'kms call'|'kms key'|'kms key create'|'kms key list'|'kms key show'|'kms key describe'|'kms key tag'|'kms key untag'|'kms key enable'|'kms key disable'|'kms key protect'|'kms key unprotect'|'kms key rotate'|'kms key rotation'|'kms key versions'|'kms key version'|'kms key set-primary'|'kms key import'|'kms key import-parameters'|'kms key delete-material'|'kms key delete'|'kms key cancel-deletion'|'kms alias'|'kms alias create'|'kms alias update'|'kms alias delete'|'kms alias list'|'kms policy'|'kms policy get'|'kms policy set'|'kms explain'|'kms keyslot'|'kms keyslot list'|'kms keyslot add'|'kms keyslot remove'|'kms audit'|'kms audit tail'|'kms completion') line="$line $word";; esac
  done
  case $line in
    'kms') known=(encrypt decrypt re-encrypt sign verify public-key random data-key encrypt-file decrypt-file csr status whoami metrics lock confirm-clock unlock call key alias policy explain keyslot audit completion --version --socket --json --timeout);;
    'kms encrypt') known=(--output --force --base64 --key --aad --aad-file);;
    'kms decrypt') known=(--output --force --base64 --key --aad --aad-file);;
    'kms re-encrypt') known=(--output --force --base64 --key --aad --aad-file --to --to-aad);;
    'kms sign') known=(--output --force --base64 --key --algorithm --format --key-version --digest);;
    'kms verify') known=(--output --force --base64 --key --algorithm --format --key-version --digest);;
    'kms public-key') known=(--key-version --output --force --base64 --key);;
    'kms random') known=(--output --force --base64);;
    'kms data-key') known=(--key --bytes --without-plaintext --aad --aad-file);;
    'kms encrypt-file') known=(--output --force --key --recipient);;
    'kms decrypt-file') known=(--output --force --key);;
    'kms csr') known=(--key --subject --dns --ip --output --force);;
    'kms status') known=();;
    'kms whoami') known=();;
    'kms metrics') known=();;
    'kms lock') known=();;
    'kms confirm-clock') known=(--yes);;
    'kms unlock') known=(--keyslot --token --pin-fd --no-person --passphrase-fd);;
    'kms call') known=();;
    'kms key') known=(create list show describe tag untag enable disable protect unprotect rotate rotation versions version set-primary import import-parameters delete-material delete cancel-deletion);;
    'kms key create') known=(--spec --usage --alias --description --tag --origin --hsm --token --rotate --unlock-lifetime --protect);;
    'kms key list') known=(--state --spec --alias --tag);;
    'kms key show') known=();;
    'kms key describe') known=();;
    'kms key tag') known=();;
    'kms key untag') known=();;
    'kms key enable') known=();;
    'kms key disable') known=();;
    'kms key protect') known=(--why);;
    'kms key unprotect') known=();;
    'kms key rotate') known=(--no-primary);;
    'kms key rotation') known=();;
    'kms key versions') known=();;
    'kms key version') known=();;
    'kms key set-primary') known=();;
    'kms key import') known=(--file --base64 --wrapped --token --expires);;
    'kms key import-parameters') known=(--public-key --token --wrapping-spec --wrapping-algorithm --force);;
    'kms key delete-material') known=(--yes);;
    'kms key delete') known=(--days --yes);;
    'kms key cancel-deletion') known=();;
    'kms alias') known=(create update delete list);;
    'kms alias create') known=();;
    'kms alias update') known=();;
    'kms alias delete') known=();;
    'kms alias list') known=();;
    'kms policy') known=(get set);;
    'kms policy get') known=();;
    'kms policy set') known=();;
    'kms explain') known=(--as --alias);;
    'kms keyslot') known=(list add remove);;
    'kms keyslot list') known=();;
    'kms keyslot add') known=(--label --token --passphrase-fd --new-passphrase-fd);;
    'kms keyslot remove') known=(--passphrase-fd);;
    'kms audit') known=(tail);;
    'kms audit tail') known=(--lines --follow --key --method --uid --unit --exe --outcome);;
    'kms completion') known=();;
  esac
  compadd -a known || _files
}
if [[ $funcstack[1] == _kms ]]; then _kms "$@"; else compdef _kms kms; fi
