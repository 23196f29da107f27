//! What the last line of the output asks for: a secret, or a command.

/// What a prompt for a secret says, in lower case.
const SECRET_WORDS: &[&str] = &[
    "password",
    "passphrase",
    "passcode",
    "passwd",
    "secret",
    "token",
    "unseal",
    "hidden",
    "no echo",
    "verification code",
    "security code",
    "one-time",
    "api key",
    "private key",
    "encryption key",
    "recovery key",
    "passwort",
    "kennwort",
    "geheim",
    "zugangscode",
    "mot de passe",
    "phrase de passe",
    "contrase",
    "clave",
    "senha",
    "palavra-passe",
    "segret",
    "parola",
    "парол",
    "секрет",
    "код подтверждения",
    "密码",
    "密碼",
    "口令",
    "密钥",
    "密鑰",
    "令牌",
    "验证码",
    "驗證碼",
    "パスワード",
    "パスフレーズ",
    "暗証",
    "秘密",
    "認証コード",
    "トークン",
    "비밀",
    "암호",
    "패스워드",
    "토큰",
    "인증 코드",
    "인증번호",
    "hasło",
    "haslo",
    "wachtwoord",
    "wachtzin",
    "şifre",
    "sifre",
    "كلمة المرور",
    "كلمة السر",
    "الرمز السري",
    "رمز التحقق",
    "पासवर्ड",
    "कूटशब्द",
    "गुप्त",
    "टोकन",
];
/// The same, if they stand as a word.
const SECRET_SHORT: &[&str] = &["pin", "otp", "mfa", "2fa", "totp", "pw", "code", "cvv", "пин"];
/// What a question ends with.
const ASKS: &[char] = &[':', '?', '：', '？', '؟', '﹕', '︰'];
/// What the prompt of a shell, or of another program with commands, ends with.
const SHELLS: &[char] = &['$', '#', '%', '>', '❯', '➜', '»', '›', 'λ', '✗'];

/// Whether the line asks for something that nobody should read.
pub(super) fn is_secret(line: &[u8]) -> bool {
    let line = String::from_utf8_lossy(line).to_lowercase();
    let line = line.trim_end();
    let mut words = line.split(|c: char| !c.is_alphanumeric());
    let says = |word: &&str| if line.ends_with(ASKS) { line.contains(*word) } else { line.ends_with(*word) };
    SECRET_WORDS.iter().any(says) || line.ends_with(ASKS) && words.any(|word| SECRET_SHORT.contains(&word))
}

/// Whether the line waits for a command, which such programs echo.
pub(super) fn is_shell(line: &[u8]) -> bool {
    String::from_utf8_lossy(line).trim_end().ends_with(SHELLS)
}

/// Whether the line is a shell's prompt and then this text without spaces.
pub(super) fn is_shell_with(line: &[u8], text: &[u8]) -> bool {
    without_spaces(line).strip_suffix(text).is_some_and(is_shell)
}

/// The text without spaces, which a wrapped line has more of.
pub(super) fn without_spaces(text: &[u8]) -> Vec<u8> {
    text.iter().copied().filter(|byte| *byte != b' ').collect()
}
