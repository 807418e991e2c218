import Glibc

/// A limit for the amount of a resource that clients have in use. It is divided so that no user can take all of the resource from the other
/// users: root can have all, the owner seven eighths, all other users together six eighths, and each other user one eighth.
struct Quota {
  private let limit: Int
  private let owner: uid_t
  private var used: [uid_t: Int] = [:]
  private var usedByAll = 0
  private var usedByOthers = 0

  /// - Parameters:
  ///   - limit: The whole amount.
  ///   - owner: The owner of the files.
  init(_ limit: Int, owner: uid_t) {
    self.limit = limit
    self.owner = owner
  }

  /// Takes `amount` for `user`.
  ///
  /// - Returns: False if the user cannot have so much; nothing is taken then.
  mutating func take(_ amount: Int, for user: uid_t) -> Bool {
    let eighth = limit / 8
    if user != 0, user != owner {
      guard used[user, default: 0] + amount <= eighth, usedByOthers + amount <= 6 * eighth
      else { return false }
    }
    guard usedByAll + amount <= (user == 0 ? limit : 7 * eighth) else { return false }
    add(amount, user)
    return true
  }

  /// Gives back an amount that `user` has taken.
  mutating func giveBack(_ amount: Int, of user: uid_t) { add(-amount, user) }

  private mutating func add(_ amount: Int, _ user: uid_t) {
    let new = used[user, default: 0] + amount
    used[user] = new == 0 ? nil : new
    usedByAll += amount
    if user != 0, user != owner { usedByOthers += amount }
  }
}

/// A limit for the time that the server takes to make texts for one user: an eighth of its time. If texts took longer, the user's next
/// texts are delayed. So the device and other users do not wait for a user that reads without end.
struct Pace {
  /// For each user, the time in nanoseconds at which the user's share covers the time that was taken.
  private var paid: [uid_t: UInt64] = [:]

  private static let share: UInt64 = 8
  /// The time that a user can take at once, in nanoseconds.
  private static let burst: UInt64 = 20_000_000
  private static let mostUsers = 1024

  /// Whether a text can be made for `user` now.
  func allows(_ user: uid_t, at now: UInt64) -> Bool {
    guard let paid = paid[user] else { return true }
    return paid <= now + Self.burst
  }

  /// Notes the time that a text for `user` has taken.
  mutating func charge(_ user: uid_t, from start: UInt64, to now: UInt64) {
    paid[user] = max(paid[user] ?? 0, start) + (now - start) * Self.share
    if paid.count > Self.mostUsers { paid = paid.filter { $0.value > now } }
  }
}
