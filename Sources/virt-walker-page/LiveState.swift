import NIOConcurrencyHelpers
import NIOCore
import Pages

/// The page, and the watchers that wait for a new step. The thread that reads the tree changes it, and the server reads it.
final class LiveState: Sendable {
  private struct State {
    var page: LivePage
    var waiting: [EventLoopPromise<Void>] = []
    /// The texts that were made since the last step. Many requests for the same text cost no more than one.
    var texts: [Text: String] = [:]

    enum Text: Hashable {
      case html(mayControl: Bool)
      case changes(epoch: Int, step: Int)
    }

    /// The number of texts that are kept.
    static let mostTexts = 64

    mutating func text(_ text: Text, _ make: (LivePage) -> String) -> String {
      if let kept = texts[text] { return kept }
      let made = make(page)
      if texts.count >= Self.mostTexts { texts = [:] }
      texts[text] = made
      return made
    }
  }

  private let state: NIOLockedValueBox<State>

  init(_ page: LivePage) { state = NIOLockedValueBox(State(page: page)) }

  /// Whether the page needs to be looked after, although the trace has no new lines: it has no step, or a step without an end.
  var isIncomplete: Bool {
    state.withLockedValue { $0.page.stepCount == 0 || $0.page.hasOpenStep }
  }

  /// Takes new texts of the tree, and wakes the watchers up if there is a step.
  func take(trace: String, guestLog: String, walk: String) {
    change { $0.take(trace: trace, guestLog: guestLog, walk: walk) }
  }

  /// Takes the state after a write to `reset`.
  func takeReset(walk: String) {
    change {
      $0.takeReset(walk: walk)
      return true
    }
  }

  private func change(_ body: (inout LivePage) -> Bool) {
    let waiting = state.withLockedValue { state -> [EventLoopPromise<Void>] in
      guard body(&state.page) else { return [] }
      defer { (state.waiting, state.texts) = ([], [:]) }
      return state.waiting
    }
    for promise in waiting { promise.succeed() }
  }

  /// The page for a reader.
  func html(mayControl: Bool) -> String {
    state.withLockedValue { state in
      state.text(.html(mayControl: mayControl)) {
        $0.html(controls: mayControl ? LiveControl.all : [])
      }
    }
  }

  /// The changes since a step; nil if there are none, and the promise is then kept for the next step.
  func changes(sinceEpoch epoch: Int, step: Int, orWait promise: EventLoopPromise<Void>?) -> String?
  {
    state.withLockedValue { state in
      if epoch == state.page.epoch, step >= state.page.stepCount {
        if let promise {
          // Watchers whose time has passed are still in the list. They are woken up, and those that are still there ask again.
          if state.waiting.count >= 256 {
            for waiting in state.waiting { waiting.succeed() }
            state.waiting = []
          }
          state.waiting.append(promise)
        }
        return nil
      }
      // All readers who have no present content get the same text.
      let known = epoch == state.page.epoch && step > 0 ? (epoch, step) : (0, 0)
      return state.text(.changes(epoch: known.0, step: known.1)) {
        $0.changes(sinceEpoch: known.0, step: known.1)
      }
    }
  }
}
