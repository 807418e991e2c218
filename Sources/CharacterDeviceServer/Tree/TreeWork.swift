import CFuse
import CLinux
import Glibc
import SystemPackage

/// A request that is answered later.
struct DelayedRequest {
  let request: fuse_req_t
  let user: uid_t
  let answer: () -> Void
}

/// Commands that the server does in parts.
struct Work {
  let work: any CommandWork
  /// The write(2) that waits for the commands, and its size; nil if no client waits.
  let write: (request: fuse_req_t, count: Int)?
}

// MARK: - Requests that take long

extension TreeContext {
  func begin(_ work: Work) {
    works.append(work)
    timer.start(milliseconds: 0)
  }

  /// Answers a request by a function that takes time. The server calls the function at once, or later if it is not possible now or the
  /// user has used more than its share of the server's time (``Pace``).
  func withTime(
    of user: uid_t, _ isPossible: Bool, _ request: fuse_req_t?, _ answer: @escaping () -> Void
  ) {
    guard let request else { return }
    let start = clinux_monotonic_nanoseconds()
    if isPossible, pace.allows(user, at: start) {
      answer()
      pace.charge(user, from: start, to: clinux_monotonic_nanoseconds())
    } else if waitingQuota.take(1, for: user) {
      delayed.append(DelayedRequest(request: request, user: user, answer: answer))
      timer.start(milliseconds: Self.delay)
      makeInterruptible(request)
    } else {
      fuse_reply_err(request, ENOMEM)
    }
  }

  /// The milliseconds between two looks at ``TreeContext/delayed``.
  private static let delay = 5

  /// Answers one of the delayed requests, and does a part of the first work.
  func proceed() {
    guard !isBusy else { return }
    timer.finish()
    let now = clinux_monotonic_nanoseconds()
    if let index = delayed.firstIndex(where: { pace.allows($0.user, at: now) }) {
      let next = delayed.remove(at: index)
      waitingQuota.giveBack(1, of: next.user)
      // From now on, an interrupt does not find the request.
      fuse_req_interrupt_func(next.request, nil, nil)
      next.answer()
      pace.charge(next.user, from: now, to: clinux_monotonic_nanoseconds())
    }
    proceedWithWork()
    if !works.isEmpty, !isWaiting {
      timer.start(milliseconds: 0)
    } else if !delayed.isEmpty {
      timer.start(milliseconds: Self.delay)
    }
  }

  /// Starts the next work, as the first one has ended.
  func stopWaiting(for work: any CommandWork) {
    guard isWaiting else { return }
    isWaiting = false
    work.onReady = nil
    timer.start(milliseconds: 0)
  }

  private func proceedWithWork() {
    guard let first = works.first, !isWaiting else { return }
    isBusy = true
    let progress = first.work.proceed()
    isBusy = false
    // An interrupt during the part has removed the work and answered the client.
    guard works.first?.work === first.work else { return }
    if progress == .waiting {
      isWaiting = true
      first.work.onReady = { [weak self] in
        self?.isWaiting = false
        self?.timer.start(milliseconds: 0)
      }
      return
    }
    guard progress != .unfinished else { return }
    works.removeFirst()
    guard let (request, count) = first.write else { return }
    if case .failed(let error) = progress {
      fuse_reply_err(request, error.rawValue)
    } else {
      fuse_reply_write(request, count)
    }
  }
}
