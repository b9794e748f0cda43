// What pages can't do without a script: passkeys, copying, the browser's time zone, and one sending of a form where a finger trembles.
// Every page works without it but for passkeys.
'use strict'

const each = (selector, act) => document.querySelectorAll(selector).forEach(act)

// The time zone goes with the sign-in, for the times on pages and in notices.
each('input[data-zone]', input => { input.value = Intl.DateTimeFormat().resolvedOptions().timeZone || '' })

each('a[data-zone]', link => {
  const to = new URL(link.href)
  to.searchParams.set('zone', Intl.DateTimeFormat().resolvedOptions().timeZone || '')
  link.href = to.href
})

// A form is sent once. Coming back to the page makes it ready again.
each('form[data-once]', form => form.addEventListener('submit', event => {
  if (form.dataset.sent) event.preventDefault()
  form.dataset.sent = 'yes'
  form.querySelectorAll('button:not([type=button])').forEach(button => button.setAttribute('aria-busy', 'true'))
}))
addEventListener('pageshow', () => each('form[data-sent]', form => {
  delete form.dataset.sent
  form.querySelectorAll('[aria-busy]').forEach(button => button.removeAttribute('aria-busy'))
}))

// What is done in steps goes on by itself.
each('form[data-further]', form => form.requestSubmit())

// Single calendars and address books: a tick chooses "Only these", and "All" takes the ticks away.
each('fieldset[data-kind]', kind => kind.addEventListener('change', ({ target }) => {
  const only = kind.querySelector('[type=radio][value=only]')
  if (target.type === 'checkbox' && target.checked) only.checked = true
  if (target.type === 'radio' && target !== only) kind.querySelectorAll('[type=checkbox]').forEach(box => { box.checked = false })
}))

// They are asked for only where what is chosen above opens some; exact scopes go before the preset.
each('details.single', single => {
  const kinds = single.querySelectorAll('fieldset[data-kind]')
  const fit = () => {
    const chosen = [...single.closest('form').querySelectorAll('[data-opens]:checked')]
    const exact = chosen.filter(one => one.name === 'scope')
    const opens = (exact.length ? exact : chosen).flatMap(one => one.dataset.opens.split(' '))
    kinds.forEach(kind => { kind.hidden = kind.disabled = chosen.length > 0 && !opens.includes(kind.dataset.kind) })
    single.hidden = [...kinds].every(kind => kind.hidden)
  }
  single.closest('form').addEventListener('change', fit)
  addEventListener('pageshow', fit)
  fit()
})

// Copying: <button data-copy="ID of what is copied" data-copied="what it says then">
each('button[data-copy]', button => {
  button.hidden = false
  button.addEventListener('click', async () => {
    const text = document.getElementById(button.dataset.copy).textContent.trim().replace(/ *\n */g, '\n')
    try {
      await navigator.clipboard.writeText(text)
    } catch {
      getSelection().selectAllChildren(document.getElementById(button.dataset.copy)) // then Ctrl-C does it
      return
    }
    const said = button.textContent
    button.textContent = button.dataset.copied
    setTimeout(() => { button.textContent = said }, 2000)
  })
})

// What is shown once is forgotten when the page is left: a browser may keep the page for its Back button.
addEventListener('pagehide', () => {
  each('[data-secret]', shown => { shown.textContent = '' })
  each('input[data-secret]', held => { held.value = '' })
})

// Passkeys. A button with data-passkey="sign-in", "prove" or "new" asks the server for a challenge, the browser for an answer, puts it
// into its form's hidden fields and sends the form.
const bytes = text => Uint8Array.from(atob(text.replace(/-/g, '+').replace(/_/g, '/')), c => c.charCodeAt(0))
const text = buffer => btoa(String.fromCharCode(...new Uint8Array(buffer))).replace(/\+/g, '-').replace(/\//g, '_').replace(/=+$/, '')

const decoded = options => {
  const key = { ...options, challenge: bytes(options.challenge) }
  if (options.user) key.user = { ...options.user, id: bytes(options.user.id) }
  for (const list of ['allowCredentials', 'excludeCredentials']) {
    if (options[list]) key[list] = options[list].map(c => ({ ...c, id: bytes(c.id) }))
  }
  return key
}

const encoded = credential => {
  const response = { clientDataJSON: text(credential.response.clientDataJSON) }
  for (const part of ['attestationObject', 'authenticatorData', 'signature', 'userHandle']) {
    if (credential.response[part]) response[part] = text(credential.response[part])
  }
  if (credential.response.getTransports) response.transports = credential.response.getTransports()
  return JSON.stringify({
    id: credential.id, rawId: text(credential.rawId), type: credential.type, response,
    authenticatorAttachment: credential.authenticatorAttachment ?? undefined,
    clientExtensionResults: credential.getClientExtensionResults(),
  })
}

// Told is an error with words of the server's for the person.
class Told extends Error {}

const passkey = async button => {
  const form = button.form
  const kind = button.dataset.passkey
  const asked = await fetch('/passkey/' + kind, { method: 'POST', headers: { Accept: 'application/json' } })
  const { options, state, problem } = await asked.json()
  if (!asked.ok) throw new Told(problem)
  const publicKey = decoded(options.publicKey ?? options)
  const credential = kind === 'new'
    ? await navigator.credentials.create({ publicKey })
    : await navigator.credentials.get({ publicKey })
  const prefix = kind === 'new' ? 'new_' : ''
  form.elements[prefix + 'state'].value = state
  form.elements[prefix + 'answer'].value = encoded(credential)
  form.requestSubmit()
}

if (window.PublicKeyCredential) {
  each('.with-script', part => { part.hidden = false })
  each('button[data-passkey]', button => {
    const form = button.form
    const problem = form.querySelector('[data-passkey-problem]')
    button.hidden = false
    button.addEventListener('click', async () => {
      const code = form.elements.code // not needed when there is a passkey; all else of the form is
      if (code) code.required = false
      if (!form.reportValidity()) return
      problem.hidden = true
      button.setAttribute('aria-busy', 'true')
      try {
        await passkey(button)
      } catch (error) {
        // The person cancelled, or has no such key here: browsers don't say which.
        problem.textContent = (error instanceof Told && error.message) || problem.dataset.passkeyProblem
        problem.hidden = false
        if (code) code.required = true
      }
      button.removeAttribute('aria-busy')
    })
  })
}
