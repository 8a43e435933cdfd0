_kms_agent() {
  local path=kms-agent word words=''
  for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
    case "$path $word" in 'kms-agent init'|'kms-agent serve'|'kms-agent dev'|'kms-agent rekey'|'kms-agent backup'|'kms-agent restore'|'kms-agent salvage'|'kms-agent install'|'kms-agent uninstall'|'kms-agent keyslot'|'kms-agent keyslot add'|'kms-agent keyslot add keychain'|'kms-agent keyslot add credential'|'kms-agent config'|'kms-agent config show'|'kms-agent config check'|'kms-agent config schema'|'kms-agent hsm'|'kms-agent hsm list'|'kms-agent audit'|'kms-agent audit verify'|'kms-agent doctor') path="$path $word";; esac
  done
  case $path in
    'kms-agent') words='init serve dev rekey backup restore salvage install uninstall keyslot config hsm audit doctor --version';;
    'kms-agent init') words='--data-dir --passphrase-fd --json --no-default-key --keychain --no-keychain --system';;
    'kms-agent serve') words='--config --data-dir --socket --audit-dir --accept-rollback';;
    'kms-agent dev') words='--socket --no-default-key';;
    'kms-agent rekey') words='--data-dir --passphrase-fd --json --system';;
    'kms-agent backup') words='--data-dir --passphrase-fd --json --system';;
    'kms-agent restore') words='--data-dir --passphrase-fd --json --system';;
    'kms-agent salvage') words='--data-dir --passphrase-fd --json --system';;
    'kms-agent install') words='--system --user --dry-run --json --passphrase-fd --with-key --no-credential';;
    'kms-agent uninstall') words='--system --user --dry-run --json';;
    'kms-agent keyslot') words='add';;
    'kms-agent keyslot add') words='keychain credential';;
    'kms-agent keyslot add keychain') words='--data-dir --passphrase-fd --json';;
    'kms-agent keyslot add credential') words='--system --data-dir --passphrase-fd --secret-fd --with-key --credstore --json';;
    'kms-agent config') words='show check schema';;
    'kms-agent config show') words='--system --config --json';;
    'kms-agent config check') words='--system --config --json';;
    'kms-agent config schema') words='';;
    'kms-agent hsm') words='list';;
    'kms-agent hsm list') words='--module --json';;
    'kms-agent audit') words='verify';;
    'kms-agent audit verify') words='--system --data-dir --audit-dir --archive --passphrase-fd --json';;
    'kms-agent doctor') words='--config --data-dir --socket --audit-dir --system --json';;
  esac
  COMPREPLY=($(compgen -W "$words" -- "${COMP_WORDS[COMP_CWORD]}"))
}
complete -o default -F _kms_agent kms-agent
