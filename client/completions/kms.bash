_kms() {
  local path=kms word words=''
  for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
    case "$path $word" in 'kms encrypt'|'kms decrypt'|'kms re-encrypt'|'kms sign'|'kms verify'|'kms public-key'|'kms random'|'kms data-key'|'kms encrypt-file'|'kms decrypt-file'|'kms csr'|'kms status'|'kms whoami'|'kms metrics'|'kms lock'|'kms confirm-clock'|'kms unlock'|'kms call'|'kms key'|'kms key create'|'kms key list'|'kms key show'|'kms key describe'|'kms key tag'|'kms key untag'|'kms key enable'|'kms key disable'|'kms key protect'|'kms key unprotect'|'kms key rotate'|'kms key rotation'|'kms key versions'|'kms key version'|'kms key set-primary'|'kms key import'|'kms key import-parameters'|'kms key delete-material'|'kms key delete'|'kms key cancel-deletion'|'kms alias'|'kms alias create'|'kms alias update'|'kms alias delete'|'kms alias list'|'kms policy'|'kms policy get'|'kms policy set'|'kms explain'|'kms keyslot'|'kms keyslot list'|'kms keyslot add'|'kms keyslot remove'|'kms audit'|'kms audit tail'|'kms completion') path="$path $word";; esac
  done
  case $path in
    'kms') words='encrypt decrypt re-encrypt sign verify public-key random data-key encrypt-file decrypt-file csr status whoami metrics lock confirm-clock unlock call key alias policy explain keyslot audit completion --version --socket --json --timeout';;
    'kms encrypt') words='--output --force --base64 --key --aad --aad-file';;
    'kms decrypt') words='--output --force --base64 --key --aad --aad-file';;
    'kms re-encrypt') words='--output --force --base64 --key --aad --aad-file --to --to-aad';;
    'kms sign') words='--output --force --base64 --key --algorithm --format --key-version --digest';;
    'kms verify') words='--output --force --base64 --key --algorithm --format --key-version --digest';;
    'kms public-key') words='--key-version --output --force --base64 --key';;
    'kms random') words='--output --force --base64';;
    'kms data-key') words='--key --bytes --without-plaintext --aad --aad-file';;
    'kms encrypt-file') words='--output --force --key --recipient';;
    'kms decrypt-file') words='--output --force --key';;
    'kms csr') words='--key --subject --dns --ip --output --force';;
    'kms status') words='';;
    'kms whoami') words='';;
    'kms metrics') words='';;
    'kms lock') words='';;
    'kms confirm-clock') words='--yes';;
    'kms unlock') words='--keyslot --token --pin-fd --no-person --passphrase-fd';;
    'kms call') words='';;
    'kms key') words='create list show describe tag untag enable disable protect unprotect rotate rotation versions version set-primary import import-parameters delete-material delete cancel-deletion';;
    'kms key create') words='--spec --usage --alias --description --tag --origin --hsm --token --rotate --unlock-lifetime --protect';;
    'kms key list') words='--state --spec --alias --tag';;
    'kms key show') words='';;
    'kms key describe') words='';;
    'kms key tag') words='';;
    'kms key untag') words='';;
    'kms key enable') words='';;
    'kms key disable') words='';;
    'kms key protect') words='--why';;
    'kms key unprotect') words='';;
    'kms key rotate') words='--no-primary';;
    'kms key rotation') words='';;
    'kms key versions') words='';;
    'kms key version') words='';;
    'kms key set-primary') words='';;
    'kms key import') words='--file --base64 --wrapped --token --expires';;
    'kms key import-parameters') words='--public-key --token --wrapping-spec --wrapping-algorithm --force';;
    'kms key delete-material') words='--yes';;
    'kms key delete') words='--days --yes';;
    'kms key cancel-deletion') words='';;
    'kms alias') words='create update delete list';;
    'kms alias create') words='';;
    'kms alias update') words='';;
    'kms alias delete') words='';;
    'kms alias list') words='';;
    'kms policy') words='get set';;
    'kms policy get') words='';;
    'kms policy set') words='';;
    'kms explain') words='--as --alias';;
    'kms keyslot') words='list add remove';;
    'kms keyslot list') words='';;
    'kms keyslot add') words='--label --token --passphrase-fd --new-passphrase-fd';;
    'kms keyslot remove') words='--passphrase-fd';;
    'kms audit') words='tail';;
    'kms audit tail') words='--lines --follow --key --method --uid --unit --exe --outcome';;
    'kms completion') words='';;
  esac
  COMPREPLY=($(compgen -W "$words" -- "${COMP_WORDS[COMP_CWORD]}"))
}
complete -o default -F _kms kms
