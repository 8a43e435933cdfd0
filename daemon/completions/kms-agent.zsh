#compdef kms-agent
_kms-agent() {
  local line=kms-agent word
  local -a known
  for word in "${(@)words[2,CURRENT-1]}"; do
    case "$line $word" in 'kms-agent init'|'kms-agent serve'|'kms-agent dev'|'kms-agent rekey'|'kms-agent backup'|'kms-agent restore'|'kms-agent salvage'|'kms-agent install'|'kms-agent uninstall'|'kms-agent keyslot'|'kms-agent keyslot add'|'kms-agent keyslot add keychain'|'kms-agent keyslot add credential'|'kms-agent config'|'kms-agent config show'|'kms-agent config check'|'kms-agent config schema'|'kms-agent hsm'|'kms-agent hsm list'|'kms-agent audit'|'kms-agent audit verify'|'kms-agent doctor') line="$line $word";; esac
  done
  case $line in
    'kms-agent') known=(init serve dev rekey backup restore salvage install uninstall keyslot config hsm audit doctor --version);;
    'kms-agent init') known=(--data-dir --passphrase-fd --json --no-default-key --keychain --no-keychain --system);;
    'kms-agent serve') known=(--config --data-dir --socket --audit-dir --accept-rollback);;
    'kms-agent dev') known=(--socket --no-default-key);;
    'kms-agent rekey') known=(--data-dir --passphrase-fd --json --system);;
    'kms-agent backup') known=(--data-dir --passphrase-fd --json --system);;
    'kms-agent restore') known=(--data-dir --passphrase-fd --json --system);;
    'kms-agent salvage') known=(--data-dir --passphrase-fd --json --system);;
    'kms-agent install') known=(--system --user --dry-run --json --passphrase-fd --with-key --no-credential);;
    'kms-agent uninstall') known=(--system --user --dry-run --json);;
    'kms-agent keyslot') known=(add);;
    'kms-agent keyslot add') known=(keychain credential);;
    'kms-agent keyslot add keychain') known=(--data-dir --passphrase-fd --json);;
    'kms-agent keyslot add credential') known=(--system --data-dir --passphrase-fd --secret-fd --with-key --credstore --json);;
    'kms-agent config') known=(show check schema);;
    'kms-agent config show') known=(--system --config --json);;
    'kms-agent config check') known=(--system --config --json);;
    'kms-agent config schema') known=();;
    'kms-agent hsm') known=(list);;
    'kms-agent hsm list') known=(--module --json);;
    'kms-agent audit') known=(verify);;
    'kms-agent audit verify') known=(--system --data-dir --audit-dir --archive --passphrase-fd --json);;
    'kms-agent doctor') known=(--config --data-dir --socket --audit-dir --system --json);;
  esac
  compadd -a known || _files
}
if [[ $funcstack[1] == _kms-agent ]]; then _kms-agent "$@"; else compdef _kms-agent kms-agent; fi
